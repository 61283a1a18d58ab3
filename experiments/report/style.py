"""The page around a report's content: HTML head, styles and script."""

from string import Template

SCRIPT = """
for (const [id, figure] of Object.entries(figures)) {
  const config = {responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]]};
  Plotly.newPlot(id, {...figure, config});
}
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>$title - Grapevine</title>
<style>
:root { --ink: #22303c; --faint: #66737f; --line: #dfe4e8; --paper: #f6f7f8; --accent: #2c6fbb; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
header span { color: var(--accent); font-weight: 600; letter-spacing: .06em;
  text-transform: uppercase; font-size: 12px; }
h1 { margin: 2px 0 10px; font-size: 28px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 17px; }
h3 { margin: 12px 0 2px; font-size: 13px; color: var(--accent); }
.told { max-width: 78ch; font-size: 16px; margin: 0 0 18px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 16px 18px; min-width: 0; }
main > .card, .card + .grid { margin-top: 16px; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
.wide { grid-column: 1 / -1; }
.how, .nothing, .note { color: var(--faint); font-size: 13px; margin: 2px 0 6px; }
.nothing { font-style: italic; padding: 18px 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr));
  gap: 10px; margin-bottom: 16px; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.figure b { display: block; font-size: 20px; font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums; }
.figure span { display: block; font-size: 13px; }
.figure small { color: var(--faint); font-size: 12px; }
.warnings { background: #fff6e5; border: 1px solid #f0d9a8; border-radius: 8px;
  padding: 12px 16px; margin-bottom: 16px; font-size: 14px; }
.warnings ul { margin: 4px 0 0; padding-left: 20px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
td, th { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid #eef1f3;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--faint); }
td.text { overflow-wrap: anywhere; }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 4px 28px; }
.groups td:first-child { color: var(--faint); width: 45%; }
.events td:first-child, .events td:nth-child(2) { white-space: nowrap; width: 1%; padding-right: 24px; }
.events th { white-space: nowrap; padding-right: 24px; }
.grave td { color: #a5352a; }
.scroll { overflow-x: auto; scrollbar-width: thin; scrollbar-color: #9fb0bf #eef1f3; background: linear-gradient(to left,
  #fff 30%, transparent) right / 40px 100% no-repeat local, linear-gradient(to left, rgba(34, 48, 60, .22), transparent)
  right / 14px 100% no-repeat scroll, #fff; }
.scroll::-webkit-scrollbar { height: 10px; background: #eef1f3; }
.scroll::-webkit-scrollbar-thumb { background: #9fb0bf; border-radius: 5px; }
.framed { border: 1px solid var(--line); border-radius: 8px; margin-bottom: 16px; }
.runs { font-size: 12.5px; }
.runs td, .runs th { padding: 6px 7px; }
.runs tr > :first-child { padding-left: 14px; }
.runs td { white-space: nowrap; }
.runs td.text { white-space: normal; min-width: 110px; overflow-wrap: normal; }
.runs i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px; }
.runs tr > th:first-child { color: var(--ink); min-width: 130px; }
.differs td { min-width: 110px; }
.differs td:first-child { color: var(--faint); white-space: nowrap; }
.meanings td:nth-child(2) { white-space: nowrap; }
.meanings td:nth-child(3) { color: var(--faint); }
summary { cursor: pointer; color: var(--accent); font-size: 13px; padding-top: 8px; }
@media (max-width: 860px) {
  .grid { grid-template-columns: minmax(0, 1fr); }
  main { padding: 18px 12px 40px; } h1 { font-size: 23px; } .card { padding: 14px 12px; }
}
</style>
</head>
<body>
<main>
<header><span>Grapevine report</span><h1>$title</h1></header>
$content
</main>
$script
</body>
</html>
""")
