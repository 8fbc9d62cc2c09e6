"""How people sign in: by password, second factor or their company's provider. django-allauth does it; this sets it up.

hashing     at most two password hashes at once
adapters    what django-allauth asks of Pointsman: who may sign up, and what the audit log gets
throttle    what django-axes asks: under which name failures are counted, what somebody locked out sees
views       the pages and their addresses
"""
