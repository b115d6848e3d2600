# bash completion for winnow. What there is to complete comes from the program itself:
# `winnow --help=options` lists the commands, `winnow COMMAND --help=options` their options.
_winnow()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} options value
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$(winnow --help=options 2>/dev/null | cut -f1) --help --version" -- "$cur"))
        return
    fi
    options=$(winnow "$command" --help=options 2>/dev/null) || return
    value=$(printf '%s\n' "$options" | awk -F'\t' -v o="$prev" '$1 == o || $2 == o { print $3; exit }')
    case $value in
    "") ;;
    MODEL) COMPREPLY=($(compgen -W "$(winnow models --names 2>/dev/null)" -- "$cur") $(compgen -f -X '!*.gguf' -- "$cur") \
                      $(compgen -d -S / -- "$cur")); return ;;
    POLICY) COMPREPLY=($(compgen -W "$(winnow recipes --names 2>/dev/null)" -- "$cur")); return ;;
    FILE) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    *) return ;;
    esac
    case $cur in
    -*) COMPREPLY=($(compgen -W "$(printf '%s\n' "$options" | cut -f1) --help" -- "$cur")) ;;
    *) case $command in
       recipes) COMPREPLY=($(compgen -W "$(winnow recipes --names 2>/dev/null)" -- "$cur")) ;;
       *) COMPREPLY=($(compgen -f -- "$cur")) ;;
       esac ;;
    esac
}
complete -o nospace -o filenames -F _winnow winnow 2>/dev/null || complete -F _winnow winnow
