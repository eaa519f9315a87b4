"""Read and watch what users write, and say what is wrong with it."""
