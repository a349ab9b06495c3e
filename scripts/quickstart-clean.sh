# shellcheck shell=bash
# `quickstart --clean`: takes away what the quickstart made, and then what it started. Sourced by
# it, never run; uses its names (label, notes, containers, networks, image).
#
# Networks go before the netagent that knows them: their bridges, its table and its rule in
# DOCKER-USER would stay without a record. What containers of others keep is named, and stops us.

clean() {
  NETAGENT=$(cat "$notes/binary" 2>/dev/null) || NETAGENT=
  [[ -x $NETAGENT ]] || NETAGENT=$(command -v netagent) || NETAGENT=false
  if started_netagent && ! answers_us && [[ -n $(leftovers) ]]; then
    die "netagent does not answer, and things of it are on this host: $(leftovers | tr '\n' ' ')" \
      "run scripts/quickstart, which starts it again; then --clean"
  fi

  step "Containers, networks, image"
  if docker version >/dev/null 2>&1; then
    remove_ours
    docker image rm "$image" >/dev/null 2>&1 || true
    good "gone"
  else
    note "no dockerd answers: nothing to remove there"
  fi
  if started_netagent && answers_us; then
    step "netagent's other networks"
    remove_others
  fi

  step "What this script started"
  stop_all
  remove_files
  if [[ -e $notes/packages ]]; then
    note "these packages were installed by apt and stay: $(tr -s ' \n' ' ' <"$notes/packages")"
  fi
  if [[ -e $notes ]]; then
    note "what is dockerd's own stays: its images, and docker0 with its rules until the next boot"
  fi
  if started_netagent; then nothing_is_left; fi
  if [[ ! -e $notes ]]; then note "nothing is noted"; fi
  rm -rf "$notes"
}

started_netagent() { [[ -e $notes/binary ]]; }

# --- networks ------------------------------------------------------------------------------------

# Removes what carries our label; somebody else's container or network of that name stays, and
# stops us.
remove_ours() {
  local name network labelled
  for name in "${containers[@]}"; do
    is_free container "$name" '{{index .Config.Labels "'"${label%=*}"'"}}'
  done
  for name in "${networks[@]}"; do
    is_free network "$name" '{{index .Labels "'"${label%=*}"'"}}'
  done
  docker ps -aq --filter "label=$label" | xargs -r docker rm -f >/dev/null
  mapfile -t labelled < <(docker network ls -q --filter "label=$label")
  kept_by_none "${labelled[@]}"
  for network in "${labelled[@]}"; do docker network rm "$network" >/dev/null; done
}

is_free() {
  local labelled
  labelled=$(docker "$1" inspect -f "$3" "$2" 2>/dev/null) || return 0
  [[ $labelled == "${label#*=}" ]] ||
    die "there is a $1 \"$2\" that is not of this script" "remove or rename it, then run this again"
}

# Stops here if a container, running or not, is on one of these networks of Docker's.
kept_by_none() {
  local network users lines=()
  for network in "$@"; do
    users=$(docker ps -a --filter "network=$network" --format '{{.Names}}' | tr '\n' ' ')
    [[ -z $users ]] ||
      lines+=("$(docker network inspect -f '{{.Name}}' "$network"): docker rm -f ${users% }")
  done
  ((${#lines[@]} == 0)) ||
    die "containers that are not of this script keep networks of netagent" "${lines[@]}" "then run this again"
}

# Removes every network of a netagent that is about to go: Docker's by Docker, its own with their
# endpoints.
remove_others() {
  local line endpoint dockers=() own=()
  while read -r line; do
    case $line in
      'docker '*) dockers+=("${line#* }") ;;
      'netagent '*) own+=("${line#* }") ;;
    esac
  done < <("$NETAGENT" network ls --no-trunc --format '{{.Origin}} {{.ID}}')
  if ((${#dockers[@]} > 0)); then
    docker version >/dev/null 2>&1 ||
      die "there are ${#dockers[@]} networks that Docker made, and no dockerd answers" \
        "start it, then run this again"
    kept_by_none "${dockers[@]}"
    for line in "${dockers[@]}"; do
      note "docker network rm $(docker network inspect -f '{{.Name}}' "$line")"
      docker network rm "$line" >/dev/null
    done
  fi
  for line in "${own[@]}"; do
    for endpoint in $("$NETAGENT" network inspect -f '{{range .Containers}}{{.EndpointID}} {{end}}' "$line"); do
      "$NETAGENT" network disconnect "$line" "$endpoint"
    done
    note "netagent network rm $("$NETAGENT" network inspect -f '{{.Name}}' "$line")"
    "$NETAGENT" network rm "$line" >/dev/null
  done
  "$NETAGENT" gc | sed 's/^/  /'
  # Links out of service are deleted behind our back.
  "$NETAGENT" status --wait >/dev/null || die "netagent is not well" "$("$NETAGENT" status)"
  good "none is left"
}

# --- daemons and files ---------------------------------------------------------------------------

stop_all() {
  local unit pid_file
  # What was started last ends first: dockerd asks netagent until its end.
  if [[ -e $notes/dockerd ]]; then
    systemctl stop docker.socket docker.service
    good "dockerd stopped, as it was before"
  fi
  if [[ -e $notes/units ]]; then
    sort -u "$notes/units" | while read -r unit; do systemctl disable --now "$unit" >/dev/null 2>&1 || true; done
    good "units stopped: $(sort -u "$notes/units" | tr '\n' ' ')"
  fi
  if [[ -e $notes/pids ]]; then
    tac "$notes/pids" | while read -r pid_file; do stop "$pid_file"; done
  fi
}

# Ends the process of a pid file, if it still is what we started.
stop() {
  local pid name
  pid=$(cat "$1" 2>/dev/null) || return 0
  name=$(cat "/proc/$pid/comm" 2>/dev/null) || name=
  case $name in
    netagent | dockerd)
      kill "$pid"
      wait_for 30 eval "! kill -0 $pid" || die "$name (pid $pid) does not end"
      good "$name stopped"
      ;;
  esac
  rm -f "$1" "${1%.pid}.log"
}

remove_files() {
  local file
  if [[ -e $notes/files ]]; then
    sort -u "$notes/files" | while read -r file; do rm -f "$file"; done
    ! has_systemd || systemctl daemon-reload
    good "files removed: $(sort -u "$notes/files" | tr '\n' ' ')"
  fi
  if [[ -e $notes/dirs ]]; then
    sort -u "$notes/dirs" | while read -r file; do rm -rf --one-file-system "$file"; done
    good "directories removed: $(sort -u "$notes/dirs" | tr '\n' ' ')"
  fi
}

# What carries netagent's mark on this host.
leftovers() {
  local iptables
  ip -o link show | sed -n 's/^[0-9]*: \([^:@]*\).* alias netagent:.*/link \1/p'
  nft list tables 2>/dev/null | grep -x 'table inet netagent' || true
  for iptables in iptables ip6tables; do
    "$iptables" -S DOCKER-USER 2>/dev/null | grep -e '--comment "\?netagent"\? ' || true
  done
}

nothing_is_left() {
  if [[ -z $(leftovers) ]]; then
    good "no link, table or rule of netagent is left"
  else
    bad "left behind:"
    leftovers | sed 's/^/    /'
    return 1
  fi
}
