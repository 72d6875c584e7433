//! Runs a job on a cluster, with the driver in this process.

fn main() -> std::process::ExitCode {
    demo_cluster::run(demo_cluster::Program::Submit, &demo_cluster::JobRegistry::standard())
}
