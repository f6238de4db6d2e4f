"""The page: papers with what was measured of their claims, and runs that anyone can start. It never imports PyTorch."""
