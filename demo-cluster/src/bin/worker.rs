//! A worker: lends cores and memory of this machine to the cluster, and runs executors.

fn main() -> std::process::ExitCode {
    demo_cluster::run(demo_cluster::Program::Worker, &demo_cluster::JobRegistry::standard())
}
