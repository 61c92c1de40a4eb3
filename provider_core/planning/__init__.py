"""How many replicas a traffic needs, and what they cost: what `provider plan` simulates.

A bench of one replica gives what its work lasts (`fitting`), a trace or a Poisson process gives who
asks when (`traffic`). A `Fleet` of simulated replicas, with slots and steps as the engine has them,
serves that in simulated time; a `Forecast` is what it comes to, in seconds and in money.
"""
