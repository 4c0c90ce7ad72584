"""What each kind of layer is to K-FAC: where its parameters lie, what goes in, and which derivatives come out."""
