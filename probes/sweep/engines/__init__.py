"""Engines that run the jobs of a sweep: processes of this machine, SLURM through submitit, Ray."""
