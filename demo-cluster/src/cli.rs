//! Command lines.

use crate::master::{MasterOptions, Placement};
use crate::progress::ProgressMode;
use crate::protocol::AppDescription;
use clap::{Args, Parser};
use std::path::PathBuf;
use std::time::Duration;

/// The master: workers and drivers register with it
#[derive(Debug, Parser)]
#[command(name = "master")]
pub(crate) struct MasterArgs {
    /// The host to listen at
    #[arg(long, env = "DEMO_MASTER_HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The port to listen at; 0 is any free one
    #[arg(long, env = "DEMO_MASTER_PORT", default_value_t = 7077)]
    pub(crate) port: u16,
    /// Fill one worker before the next, instead of spreading applications out
    #[arg(long)]
    pack: bool,
    /// Seconds without heartbeat until a worker is removed
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    worker_timeout: u64,
    /// How many executors may fail in a row with none running, until the application fails;
    /// negative: any number
    #[arg(long, default_value_t = 10, allow_hyphen_values = true)]
    max_executor_retries: i64,
}

impl MasterArgs {
    pub(crate) fn options(&self) -> MasterOptions {
        MasterOptions {
            worker_timeout: Duration::from_secs(self.worker_timeout),
            placement: if self.pack { Placement::Pack } else { Placement::SpreadOut },
            max_executor_failures: u32::try_from(self.max_executor_retries).ok(),
        }
    }
}

/// A worker: lends cores and memory of this machine to the cluster
#[derive(Debug, Parser)]
#[command(name = "worker")]
pub(crate) struct WorkerArgs {
    /// The master, as rpc://Master@host:port
    #[arg(long, env = "DEMO_MASTER", value_parser = master_uri)]
    pub(crate) master: String,
    /// The host to listen at
    #[arg(long, env = "DEMO_WORKER_HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The port to listen at; 0 is any free one
    #[arg(long, env = "DEMO_WORKER_PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// How many cores to lend; all by default
    #[arg(long, env = "DEMO_WORKER_CORES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cores: Option<u32>,
    /// How much memory to lend, as 512M or 4G; by default all but 1G
    #[arg(long, env = "DEMO_WORKER_MEMORY", value_parser = memory_mb)]
    pub(crate) memory: Option<u64>,
    /// Where executors have their directories
    #[arg(long, env = "DEMO_WORKER_DIR")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Milliseconds between attempts to register, times a random factor of this worker's own
    #[arg(long, hide = true, default_value_t = 10_000)]
    pub(crate) registration_wait_ms: u64,
    /// The program to run as an executor; by default this one
    #[arg(long, hide = true)]
    pub(crate) executor_program: Option<PathBuf>,
}

/// How a job is run
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// How many cores to use in all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    total_cores: Option<u32>,
    /// Cores of one executor; by default one executor per worker takes what it is given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    executor_cores: Option<u32>,
    /// Memory of one executor
    #[arg(long, default_value = "256M", value_parser = memory_mb)]
    executor_memory: u64,
    /// How many reduce tasks
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) partitions: u32,
    /// Seconds to go on without any executor
    #[arg(long, default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Compare the result with that of a single thread
    #[arg(long)]
    pub(crate) verify: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
}

impl RunArgs {
    pub(crate) fn description(&self, name: &str) -> AppDescription {
        AppDescription {
            name: name.to_owned(),
            max_cores: self.total_cores,
            cores_per_executor: self.executor_cores,
            memory_per_executor_mb: self.executor_memory,
        }
    }
}

/// Runs a job on a cluster, with the driver in this process
#[derive(Debug, Parser)]
#[command(name = "submit")]
pub(crate) struct SubmitArgs {
    /// The master, as rpc://Master@host:port
    #[arg(long, env = "DEMO_MASTER", value_parser = master_uri)]
    pub(crate) master: String,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// The job, and its own arguments; JOB --help shows them
    #[arg(
        required = true,
        value_name = "JOB",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) job: Vec<String>,
}

/// A whole cluster and a job in one command: a master, workers, a driver
///
/// Without arguments it counts the words of the sources of this program's dependencies.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
pub(crate) struct QuickstartArgs {
    /// How many workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// Cores of each worker; by default they share the machine
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) worker_cores: Option<u32>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// A job with its own arguments, or paths whose words are counted
    #[arg(value_name = "JOB or PATH", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) job: Vec<String>,
}

/// What a worker passes to the executors that it launches
#[derive(Debug, Parser)]
#[command(name = "executor")]
pub(crate) struct ExecutorArgs {
    #[arg(long)]
    pub(crate) driver: String,
    #[arg(long)]
    pub(crate) worker: String,
    #[arg(long)]
    pub(crate) worker_id: String,
    #[arg(long)]
    pub(crate) app: String,
    #[arg(long)]
    pub(crate) executor: u32,
    #[arg(long)]
    pub(crate) cores: u32,
}

/// The URI of a master; `host:port` alone will do.
fn master_uri(text: &str) -> Result<String, String> {
    let uri = if text.contains("://") {
        text.to_owned()
    } else {
        format!("rpc://{}@{text}", crate::protocol::MASTER)
    };
    match uri.parse::<rpc_actix::EndpointAddress>() {
        Ok(_) => Ok(uri),
        Err(error) => Err(error.to_string()),
    }
}

/// Memory in MiB, from `512M`, `4G` or a bare number of MiB (D3).
fn memory_mb(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or("").to_ascii_lowercase().as_str() {
        "" | "m" | "mb" | "mib" => 1,
        "g" | "gb" | "gib" => 1024,
        _ => return Err("the unit of memory is M or G".to_owned()),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(0) => {
            Err("Memory can't be 0, missing a M or G on the end of the memory specification?"
                .to_owned())
        }
        Some(memory) => Ok(memory),
        None => Err("memory is a number with M or G, as in 512M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_lines_are_well_formed() {
        for command in [
            MasterArgs::command(),
            WorkerArgs::command(),
            SubmitArgs::command(),
            QuickstartArgs::command(),
            ExecutorArgs::command(),
        ] {
            command.debug_assert();
        }
    }

    #[test]
    fn memory_has_a_unit() {
        assert_eq!(
            (memory_mb("512M"), memory_mb("2g"), memory_mb("7")),
            (Ok(512), Ok(2048), Ok(7))
        );
        assert!(memory_mb("0").unwrap_err().contains("missing a M or G"));
        assert!(memory_mb("1T").is_err() && memory_mb("-1").is_err() && memory_mb("").is_err());
    }

    #[test]
    fn a_master_may_be_an_address_alone() {
        assert_eq!(master_uri("127.0.0.1:77").as_deref(), Ok("rpc://Master@127.0.0.1:77"));
        assert_eq!(master_uri("rpc://M@h:7").as_deref(), Ok("rpc://M@h:7"));
        assert!(master_uri("nonsense").is_err());
    }
}
