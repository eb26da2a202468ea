"""Files of pictures with their labels: found, read once, compared. No torch: a folder of pictures needs none."""
