/* policy/stages/list.h - every stage that a policy can name, one line each: +kind:name. */
STAGE(alloc, uniform)
STAGE(alloc, ada)
STAGE(alloc, pyramid)
STAGE(alloc, density)
STAGE(alloc, entropy)
STAGE(recover, drop)
STAGE(recover, nearest)
STAGE(recover, compensate)
