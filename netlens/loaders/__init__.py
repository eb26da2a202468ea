"""A Dataset or a DataLoader of the user, looked at while it works: samples, batches, workers, pace."""
