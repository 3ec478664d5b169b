"""One module per group of routes; `app.py` lists them in ROUTERS."""
