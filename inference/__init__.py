"""Volumes to label maps; torch and MONAI live here and nowhere else."""
