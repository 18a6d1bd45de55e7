"""Views: what each page shows, and to whom. One module for each part of the site."""
