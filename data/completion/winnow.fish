# fish completion for winnow. What there is to complete comes from the program itself:
# `winnow --help=options` lists the commands, `winnow COMMAND --help=options` their options.
function __winnow_commands
    winnow --help=options 2>/dev/null | string replace -r '^([^\t]*)\t\t\t' '$1\t'
end
function __winnow_words
    set -l words (commandline -opc)
    set -l options (winnow $words[2] --help=options 2>/dev/null)
    for line in $options
        set -l f (string split \t -- $line)
        if test "$words[-1]" = "$f[1]" -o "$words[-1]" = "$f[2]" && test -n "$f[3]"
            switch $f[3]
                case MODEL
                    winnow models --names 2>/dev/null
                    __fish_complete_suffix .gguf
                case POLICY
                    winnow recipes --names 2>/dev/null
                case FILE
                    __fish_complete_path (commandline -ct)
            end
            return
        end
    end
    for line in $options
        set -l f (string split \t -- $line)
        printf '%s\t%s\n' $f[1] $f[4]
    end
    __fish_complete_path (commandline -ct)
end
complete -c winnow -f -n 'test (count (commandline -opc)) -eq 1' -a '(__winnow_commands)'
complete -c winnow -f -n 'test (count (commandline -opc)) -gt 1' -a '(__winnow_words)'
