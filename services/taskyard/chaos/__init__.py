"""The chaos suite, `./dev chaos`: real processes under mixed load, killed, frozen and starved, and then judged.

It starts `taskyard dev` with two instances of each service and two workers as a child (`system`), puts more than two hundred
tasks a second on it (`load`), of which some leave a witness outside Taskyard each time that they run (`witnesses`), and
breaks one part after the other (`plan`, `faults`). Then it waits until everything has ended, gathers all that there is
(`gathering`): the whole log, stored commands, journals of workers, witnesses, the read model, and what clients were told;
and gives it to the judge, who says what was lost, done twice, stuck or leaked (`report`).
"""
