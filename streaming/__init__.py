"""How frames come in and scenes go out: sources, scheduling, wire format, publisher, subscriber, control.

Never imports torch or `learning`; of `engine` it needs the data types and the pipeline only.
"""
