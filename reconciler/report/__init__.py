"""Values as text for people. Pure: what is printed where, and in which colours, is decided by who asks.

JSON comes from `reconciler.model.encoding`, shared with the HTTP API. Nothing here imports rich but `reconciler.report.rich_table`,
so that output to a pipe or a file does not pay for it.
"""
