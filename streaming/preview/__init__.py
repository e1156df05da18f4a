"""The live page: what the engine sees, in a browser, without slowing the engine down.

Read `live_view.py` first: it keeps the newest frame of each source and encodes it only while somebody watches.
`server.py` hands that to browsers, `actions.py` takes what they click, `page/` is the page: plain files, no build.
"""
