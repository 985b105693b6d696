"""Labels to arrays without gradient: distance, border weight, contour, skeleton, components."""
