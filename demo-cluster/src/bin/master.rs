//! The cluster's master: workers and drivers register with it.

fn main() -> std::process::ExitCode {
    demo_cluster::run(demo_cluster::Program::Master, &demo_cluster::JobRegistry::standard())
}
