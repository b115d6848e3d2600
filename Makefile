# winnow: `make` builds ./winnow and build/libwinnow.a; `make help` lists the rest.
#
#   make                 the program            make check        the tests
#   make demo            a first session        make check-hard   rare paths made common
#   make asan, tsan      unit tests, sanitized  make fuzz         each fuzzer, FUZZ_SECONDS each
#   make bench           ratios on this machine make install PREFIX=/usr/local DESTDIR=
#   make docs            docs/policies.md, from the recipes
#
# Variants build into directories of their own (B=build/asan), so they do not disturb
# each other. Each instruction set has its own files, compiled with its own flags.

PREFIX      ?= /usr/local
DESTDIR     ?=
ifeq ($(origin CC),default)
CC          := gcc
endif
B           ?= build
FUZZ_SECONDS ?= 20
KSAN        ?= $(SAN)
OPT         ?= -O3 -g
VERSION     := 0.1.0

LIBS_PC  := libpcre2-8 libutf8proc jansson libxxhash
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wsign-compare -Wstrict-prototypes -Wvla
CFLAGS_  := -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -ffp-contract=off -fno-math-errno -pthread \
            -Iinclude -Isrc -I. $(shell pkg-config --cflags $(LIBS_PC) 2>/dev/null) $(CFLAGS)
LDLIBS_  := $(shell pkg-config --libs $(LIBS_PC) 2>/dev/null) -lm -ldl -pthread
# What policy libraries may call in the program that loads them.
EXPORTS  := src/policy/exports.list

SRC      := $(filter-out src/cli/%,$(wildcard src/*/*.c src/*/*/*.c))
CLI      := $(wildcard src/cli/*.c)
COMMANDS := $(shell sed -n 's/^int wn_cli_\([a-z]*\).*/\1/p' src/cli/cli.h)
# Templates and filler of `winnow eval`, as bytes between _binary_<file>_start and _end.
DATA     := $(wildcard data/eval/*.json data/eval/*.txt)
LIB_O    := $(SRC:%.c=$(B)/%.o) $(DATA:%=$(B)/%.o)
CLI_O    := $(CLI:%.c=$(B)/%.o)
# Long ones first, so that nothing is left running alone.
TESTS    := $(wildcard tests/parity/*.c tests/golden/*.c tests/same/*.c tests/unit/*/*.c tests/cli/*.c)
TEST_X   := $(TESTS:%.c=$(B)/%)
UNIT_X   := $(filter $(B)/tests/unit/% $(B)/tests/parity/%,$(TEST_X))
SUPPORT_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))
BENCH_X  := $(patsubst %.c,$(B)/%,$(wildcard bench/*.c))
TOOLS_X  := $(patsubst %.c,$(B)/%,$(wildcard tools/*.c))
FUZZ_X   := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/*.c))

all: winnow lib
lib: $(B)/libwinnow.a
tools: $(TOOLS_X)
.PHONY: all lib tools deps check check-unit check-hard asan tsan fuzz fuzz-build bench demo install clean help

winnow: $(CLI_O) $(B)/libwinnow.a $(EXPORTS)
	$(CC) $(CFLAGS_) $(SAN) $(LDFLAGS) -Wl,--dynamic-list=$(EXPORTS) -o $@ $(CLI_O) $(B)/libwinnow.a -ledit $(LDLIBS_)

$(B)/libwinnow.a: $(LIB_O)
	@rm -f $@
	$(AR) rcs $@ $^

# One line per instruction set; everything else is plain x86-64 (or whatever the target is).
$(B)/%_avx2.o:   ISA = -mavx2 -mfma -mf16c
$(B)/%_avx512.o: ISA = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 \
                       -mavx2 -mfma -mf16c -mprefer-vector-width=512
$(B)/%_amx.o:    ISA = -mamx-tile -mamx-int8 -mavx512f -mavx512bw -mavx512vl -mavx512dq \
                       -mavx512vnni -mavx512vbmi -mavx2 -mfma -mf16c -mprefer-vector-width=512

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_) $(if $(ISA),$(KSAN),$(SAN)) $(ISA) -MMD -MP -c -o $@ $<

# What winnow --version says of the build; main.o alone is made again when it changes.
$(B)/src/cli/main.o: CFLAGS_ += -DWN_COMMIT='"$(shell cat $(B)/commit)"' -DWN_COMPILER='"$(CC)"' \
                                -DWN_BUILD_FLAGS='"$(strip $(OPT) $(SAN) $(CFLAGS))"'
$(B)/src/cli/main.o: $(B)/commit
$(B)/commit: FORCE
	@mkdir -p $(@D)
	@c=$$(git describe --always --dirty 2>/dev/null || echo "no commit"); \
	  [ "$$c" = "$$(cat $@ 2>/dev/null)" ] || echo "$$c" > $@
# Phony, as .SECONDARY below lets a file that is not there be.
.PHONY: FORCE

# From its own directory, because the name as given becomes part of the symbols.
$(B)/data/eval/%.o: data/eval/%
	@mkdir -p $(@D)
	cd $(<D) && $(LD) -r -b binary -z noexecstack -o $(abspath $@) $(<F)

$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/libwinnow.a
	$(CC) $(CFLAGS_) $(SAN) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(B)/libwinnow.a $(LDLIBS_)

# Policy libraries: the example, and broken ones for the tests.
PLUGINS  := $(B)/examples/policy.so $(patsubst %.c,$(B)/%.so,$(wildcard tests/plugins/*.c))
$(PLUGINS): $(B)/%.so: %.c include/winnow_policy.h include/winnow.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_) -fPIC -shared -o $@ $<

$(B)/libsupport.a: $(SUPPORT_O)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/tests/%: $(B)/tests/%.o $(B)/libsupport.a $(B)/libwinnow.a
	$(CC) $(CFLAGS_) $(SAN) $(LDFLAGS) -o $@ $< $(B)/libsupport.a $(B)/libwinnow.a -lcmocka $(LDLIBS_)

$(BENCH_X) $(TOOLS_X) $(B)/examples/embed: $(B)/%: $(B)/%.o $(B)/libwinnow.a
	$(CC) $(CFLAGS_) $(SAN) $(LDFLAGS) -o $@ $< $(B)/libwinnow.a $(LDLIBS_)

.SECONDARY:
-include $(shell find $(B) -maxdepth 6 -name '*.d' -not -path '$(B)/asan/*' -not -path '$(B)/tsan/*' \
           -not -path '$(B)/fuzz/*' -not -path '$(B)/clang/*' 2>/dev/null)

# ---- tests -------------------------------------------------------------------

deps:
	@scripts/deps

check: deps
	@$(MAKE) --no-print-directory -j$$(nproc) check-build
	@scripts/run-tests $(TEST_X) $(B)/examples/embed

.PHONY: check-build
check-build: winnow tools $(TEST_X) $(B)/examples/embed $(PLUGINS)

# Where threads meet: teams, attention, the engine, workers. What leaf kernels write of the products that
# threads share, tests/same compares over thread counts.
THREAD_X := $(filter $(B)/tests/unit/base/% $(B)/tests/unit/attention/% $(B)/tests/unit/engine/promises \
              $(B)/tests/unit/eval/jobs,$(TEST_X))
.PHONY: check-threads
check-threads: $(THREAD_X)
	@scripts/run-tests $(THREAD_X)

# What a quarter of 8192 positions takes is counted once, not sanitized: a minute for no new code. So are the
# products of matrices where leaf kernels are not sanitized.
SAN_X    := $(filter-out $(if $(SAN),$(B)/tests/unit/cache/bars $(if $(KSAN),,$(B)/tests/parity/matmul)),$(UNIT_X))
check-unit: $(SAN_X)
	@scripts/run-tests $(SAN_X)

asan:
	@$(MAKE) --no-print-directory -j$$(nproc) B=build/asan OPT="-O1 -g" \
	  SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" check-unit

tsan:
	@$(MAKE) --no-print-directory -j$$(nproc) B=build/tsan OPT="-O1 -g" KSAN= SAN="-fsanitize=thread" check-threads

# Pages of 4 slots, a tiny pool, a decision at every boundary of one token: rare paths become common.
check-hard: deps
	@$(MAKE) --no-print-directory -j$$(nproc) check-build
	@WN_TEST_HARD=1 scripts/run-tests $(filter $(B)/tests/unit/cache/% $(B)/tests/unit/page/% \
	  $(B)/tests/unit/attention/% $(B)/tests/same/%,$(TEST_X))

# Fuzzers are for parsers: kernels stay plain there (clang takes minutes to instrument them).
FUZZ_FLAGS := CC=clang B=build/fuzz OPT="-O1 -g" KSAN= \
              SAN="-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined"
fuzz-build:
	@$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ_FLAGS) fuzz-bins
.PHONY: fuzz-bins
fuzz-bins: $(FUZZ_X)
fuzz: fuzz-build
	@scripts/run-fuzz build/fuzz $(FUZZ_SECONDS)

# ---- use ---------------------------------------------------------------------

# The part of docs/policies.md behind its introduction is made from the tables of recipes.
.PHONY: docs
docs: winnow
	{ cat docs/policies.in.md; ./winnow recipes --markdown; } > docs/policies.md

bench: winnow tools $(BENCH_X)
	@scripts/run-bench $(B)

demo: deps
	@$(MAKE) --no-print-directory -j$$(nproc) winnow
	@scripts/demo

# A page for each command, from what --help says.
MAN      := winnow $(addprefix winnow-,$(COMMANDS))
$(B)/man/winnow.1: winnow
	@mkdir -p $(@D)
	./winnow --help=man > $@
$(B)/man/winnow-%.1: winnow
	@mkdir -p $(@D)
	./winnow $* --help=man > $@
.PHONY: man
man: $(MAN:%=$(B)/man/%.1)

install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 winnow $(DESTDIR)$(PREFIX)/bin/winnow
	install -m 644 $(B)/libwinnow.a $(DESTDIR)$(PREFIX)/lib/libwinnow.a
	install -m 644 include/winnow.h include/winnow_policy.h $(DESTDIR)$(PREFIX)/include
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 644 $(MAN:%=$(B)/man/%.1) $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 data/completion/winnow.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/winnow
	install -m 644 data/completion/winnow.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_winnow
	install -m 644 data/completion/winnow.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/winnow.fish
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LIBS_PC)|' winnow.pc.in \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/winnow.pc

clean:
	rm -rf build winnow

help:
	@sed -n '1,11s/^# \{0,1\}//p' Makefile
