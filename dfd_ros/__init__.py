"""Depth from defocus for robots: a camera with a switched aperture, ROS 2 nodes, and the networks behind them."""
