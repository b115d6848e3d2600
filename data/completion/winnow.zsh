#compdef winnow
# zsh completion for winnow. What there is to complete comes from the program itself:
# `winnow --help=options` lists the commands, `winnow COMMAND --help=options` their options.
_winnow()
{
    local -a lines specs fields
    local line name short value help act
    if (( CURRENT == 2 )); then
        lines=("${(@f)$(winnow --help=options 2>/dev/null)}")
        for line in $lines; do
            fields=("${(@ps:\t:)line}")
            specs+=("${fields[1]}:${fields[4]}")
        done
        _describe command specs
        return
    fi
    lines=("${(@f)$(winnow $words[2] --help=options 2>/dev/null)}")
    for line in $lines; do
        fields=("${(@ps:\t:)line}")
        name=$fields[1] short=$fields[2] value=$fields[3] help=${${fields[4]//\[/(}//\]/)}
        help=${help//:/\\:}
        case $value in
        '') act= ;;
        MODEL) act=":model:{ _files -g '*.gguf'; compadd -- \${(f)\"\$(winnow models --names 2>/dev/null)\"} }" ;;
        POLICY) act=":policy:{ compadd -- \${(f)\"\$(winnow recipes --names 2>/dev/null)\"} }" ;;
        FILE) act=":file:_files" ;;
        *) act=":$value: " ;;
        esac
        specs+=("${name}[$help]$act")
        [[ -n $short ]] && specs+=("${short}[$help]$act")
    done
    shift words
    (( CURRENT-- ))
    _arguments -s $specs '*:file:_files'
}
_winnow "$@"
