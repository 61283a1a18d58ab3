"""What one peer is: it knows no link model, no graph library and no torch."""
