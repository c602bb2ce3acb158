"""Write and read the records of what exists. Nothing here trains, plans or draws."""
