"""``gogate top``: a live view of a running gateway in the terminal, over its admin API.

``command`` the command and ``--once`` · ``figures`` two looks → what happened in between · ``tables`` columns,
sorting, filter · ``state`` what the user sees, and what keys do to it · ``frame`` a screen as lines of text ·
``poller`` asks the gateway, in a thread · ``screen`` the terminal, by curses. Only the last two do more than compute.
"""
