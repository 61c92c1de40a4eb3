-- What an account has bought, used and reserved; nothing if it pays later.
--
-- KEYS: the account, what requests hold of it, and when that lapses.
return balance(KEYS[1], KEYS[2], KEYS[3])
