"""What drift concludes: windows, detection, performance and policy. Pure."""
