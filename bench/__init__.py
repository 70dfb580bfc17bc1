"""What a layer of middleware costs, as ratios measured side by side: `python -m bench`."""
