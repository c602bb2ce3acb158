"""Write down what exists and read it back. Nothing here trains, plans or draws."""
