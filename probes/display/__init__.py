"""How far something is: a bar on a terminal, a line that is written anew in a notebook, a line a minute in a pipe."""
