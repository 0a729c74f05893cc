"""The simulated vehicle: a parking lot seen by a two-aperture camera and a spinning LiDAR, with its ground truth."""
