"""Kill tests: SIGKILL at every state of the spool and at random under load; what was acknowledged is never lost.

Two programs are killed. The small one (`program`) is what is kept on one machine: spool, runner, settlement and the
operator's desk, in a process that is forked and dies at the N-th file operation or at a random moment; it costs a
fraction of a second. The whole one (`load`) is the gateway as it is served, with senders and next hops around it. Both
write down what was promised and what was handed on, and both are judged after every death.

`python -m tests.kill small|whole --rounds N --seed S` runs as many rounds as wanted.
"""
