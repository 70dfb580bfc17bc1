"""A page for people and its JSON twin.

site.py    what is answered, and to whom
server.py  a small server of its own
asgi.py    the same as an app, to be mounted in another
page/      the page itself: its markup, style and script
"""
