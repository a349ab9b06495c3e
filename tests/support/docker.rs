//! A dockerd inside a lab: starting, killing, containers.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use super::lab::{Lab, Ran};
use super::place::Place;
use super::until;

/// A running dockerd.
pub struct Dockerd {
    pub(super) child: Child,
    pid: String,
}

impl Lab {
    /// The client of Debian's package, of one age with its daemon, where there is one: newer
    /// clients refuse `--mac-address` against an old daemon.
    pub fn client(&self) -> &'static str {
        let unpacked = self.root.is_some() || Path::new("/usr/bin/docker").exists();
        if unpacked { "/usr/bin/docker" } else { "docker" }
    }

    /// Starts dockerd and waits until it answers; makes the image `lab` at the first start.
    #[track_caller]
    pub fn start_dockerd(&self) {
        self.start_dockerd_with(&[]);
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_dockerd_with(&self, more: &[&str]) {
        // As it is called in dockerd's own root.
        let data_root = match &self.root {
            Some(_) => "/data/docker".to_owned(),
            None => self.data("docker"),
        };
        let cgroup = format!("/{}", self.id());
        let mut line = vec!["dockerd", "--data-root", &data_root, "--exec-root", "/run/docker"];
        line.extend(["--pidfile", "/run/docker.pid", "--config-file", "/run/docker-daemon.json"]);
        line.extend(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &cgroup]);
        line.extend(more);
        std::fs::write(self.inside("/run/docker-daemon.json"), "{}").unwrap();
        let child = self.spawn_daemon("dockerd", &self.of_docker(&line));
        let pid = self.daemon_pid("dockerd");
        *self.dockerd.borrow_mut() = Some(Dockerd { child, pid });
        until("dockerd answers", Duration::from_secs(60), || {
            let ended = self.dockerd.borrow_mut().as_mut().unwrap().child.try_wait().unwrap();
            assert!(ended.is_none(), "dockerd ended by itself: {}", ended.unwrap());
            self.try_docker(&["version"]).ok.then_some(())
        });
        if !self.try_docker(&["image", "inspect", "lab"]).ok {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/busybox-image");
            let docker = self.of_docker(&[self.client()]).join(" ");
            let import = format!("{script} | {docker} import -c 'ENV PATH=/bin' - lab");
            self.run(&["bash", "-o", "pipefail", "-c", &import]);
        }
    }

    /// Kills dockerd and its containerd, as a power cut would.
    pub fn kill_dockerd(&self) {
        let mut dockerd = self.dockerd.borrow_mut().take().expect("no dockerd runs");
        let containerd =
            std::fs::read_to_string(self.inside("/run/docker/containerd/containerd.pid"));
        self.run(&["kill", "-KILL", &dockerd.pid]);
        if let Ok(pid) = containerd {
            self.try_run(&["kill", "-KILL", pid.trim()]);
        }
        until("dockerd ends", Duration::from_secs(20), || dockerd.child.try_wait().unwrap());
    }

    /// Stops dockerd as systemd would.
    pub fn stop_dockerd(&self) {
        let mut dockerd = self.dockerd.borrow_mut().take().expect("no dockerd runs");
        self.run(&["kill", "-TERM", &dockerd.pid]);
        until("dockerd ends", Duration::from_secs(40), || dockerd.child.try_wait().unwrap());
    }

    /// Runs `docker …`.
    pub fn try_docker(&self, args: &[&str]) -> Ran {
        let mut argv = vec![self.client()];
        argv.extend(args);
        self.try_run(&self.of_docker(&argv))
    }

    /// The same for a command that must succeed; its output.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args).expect_ok()
    }

    /// `docker run -d --name NAME OPTIONS lab serve NAME 80 81 82`: a container that says its
    /// name on these ports.
    #[track_caller]
    pub fn container(&self, name: &str, options: &[&str]) -> Place {
        self.try_container(name, options).expect_ok();
        self.listening(name, &[":80 ", ":81 ", ":82 "])
    }

    /// The same where it may fail.
    pub fn try_container(&self, name: &str, options: &[&str]) -> Ran {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(options);
        args.extend(["lab", "serve", name, "80", "81", "82"]);
        self.try_docker(&args)
    }

    /// Where a running container's processes are, once it says its name on port 80.
    #[track_caller]
    pub fn container_place(&self, name: &str) -> Place {
        self.listening(name, &[":80 "])
    }

    #[track_caller]
    fn listening(&self, name: &str, ports: &[&str]) -> Place {
        let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", name]);
        let place = self.place_of(name, pid.parse().unwrap());
        until("the container listens", Duration::from_secs(20), || {
            let listening = place.run(&["ss", "-Hltn"]);
            ports.iter().all(|port| listening.contains(port)).then_some(())
        });
        place
    }

    /// The lab as most tests want it: first the agent, then dockerd.
    pub fn with_dockerd() -> Option<Self> {
        let lab = Self::start()?;
        if super::driver() == "netagent" {
            lab.start_agent();
            lab.start_dockerd();
        } else {
            // docker-proxy answers UDP from another address than it was asked at.
            lab.start_dockerd_with(&["--userland-proxy=false"]);
        }
        Some(lab)
    }

    /// `docker network create -d netagent --subnet SUBNET OPTIONS NAME`.
    #[track_caller]
    pub fn docker_network(&self, name: &str, subnet: &str, options: &[&str]) {
        let driver = super::driver();
        let mut args = vec!["network", "create", "-d", &driver, "--subnet", subnet];
        args.extend(options);
        args.push(name);
        self.docker(&args);
    }

    /// A container's IPv4 address on `network`.
    #[track_caller]
    pub fn address(&self, container: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        self.docker(&["inspect", "-f", &format, container])
    }
}
