"""A shop and a route guide behind one stack, in all sixteen places: `python -m interpose.demo`.

Two services run behind a sync and an asyncio server, called by a sync and an asyncio client. A seeded
interceptor refuses three attempts in ten before the handler runs. The same load goes through twice, without
the stack and with it, and the table says what the difference was.

Then orders pass three services that call each other, with one id, one deadline and one cancellation; and an
order is refused with all that is wrong with it, field by field.

At last three clients meet an outage: without the stack, with `Retry`, and with `Hedge` and a circuit breaker.
"""
