"""Hold the learning methods, one file each: its document `Config` and its module `Method`."""
