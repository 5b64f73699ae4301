"""What `scripts/silicon` does on a machine with an NVIDIA GPU.  Where TVM or torch are missing, so are their parts."""
