"""What stands in the way of a pull: this machine, looked at, and each step of the way to an image, tried."""
