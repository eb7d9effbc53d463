"""The supervisor: one small process per agent folder that owns the agent's programs and outlives the agent.

    agent  <- unix socket, `protocol` ->  supervisor (`app`)  <- socket pair ->  keeper (`keeper`), one a running program
                                                                                    `- program, leader of a session

The supervisor reads the pipes of programs into spools (`spool`: the beginning, and a ring for the end), knows deadlines,
and keeps exit statuses until it is told to forget. A keeper is a fork of it that is the subreaper of its one program:
whatever the program starts is in the keeper's tree, also after `setsid` and a double fork, and the end of a program is
told when nobody of that tree lives. A program begins when the agent says so, which is when its pid is on the agent's
disk. If the supervisor dies, keepers stop their programs in order and go. It knows no task, no journal and no network.
It ends when nothing is left to keep and no agent is connected, when it is told to, and when its folder is gone.
"""
