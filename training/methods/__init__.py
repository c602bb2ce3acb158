"""Learning methods, one file each: a document `Config` and a module `Method` whose forward pass gives named losses."""
