-- What an account has bought, used and reserved; nothing if it pays later.
--
-- KEYS: the account, and what requests hold of it.
return balance(KEYS[1], KEYS[2])
