"""Networks (trunk, bottleneck, head), and the checkpoint folders that hold trained ones."""
