# A client on Ruby's grpc. Each line of its input is a job, each line of its output says how one ended: jobs.py has both.
require "base64"
require "json"
require "google/protobuf/wrappers_pb"
require "grpc"

Text = Google::Protobuf::StringValue
CODES = GRPC::Core::StatusCodes.constants.to_h { |name| [GRPC::Core::StatusCodes.const_get(name), name] }
OPTIONS = { "grpc.max_receive_message_length" => 64 * 1024 * 1024, "grpc.initial_reconnect_backoff_ms" => 100 }.freeze
STUB = GRPC::ClientStub.new(ARGV[0], :this_channel_is_insecure, channel_args: OPTIONS)
METHODS = { "Unary" => :request_response, "Down" => :server_streamer, "Up" => :client_streamer, "Both" => :bidi_streamer }
PRINTING = Mutex.new

# It looks for a status only when a message cannot be sent, so an open upload goes on.
def requests(job)
  Enumerator.new do |out|
    out << Text.new(value: job["text"])
    loop { sleep(0.05); out << Text.new(value: job["text"]) } if job["open"]
  end
end

def perform(job)
  messages = []
  ending = { id: job["id"], code: "OK", details: "", messages: messages }
  streams = %w[Up Both].include?(job["method"])
  request = streams ? requests(job) : Text.new(value: job["text"])
  deadline = job["timeout"] ? Time.now + job["timeout"] : nil
  begin
    operation = STUB.send(METHODS[job["method"]], "/interop.v1.Peer/#{job["method"]}", request,
                          Text.method(:encode), Text.method(:decode),
                          deadline: deadline, metadata: job["metadata"] || {}, return_op: true)
    if job["cancel_after"]
      Thread.new { sleep(job["cancel_after"]); operation.cancel }
    end
    answer = operation.execute
    [answer].each { |one| messages << one.value[0, 40] } unless %w[Down Both].include?(job["method"])
    answer.each { |one| messages << one.value[0, 40] } if %w[Down Both].include?(job["method"])
    ending[:word] = [(operation.trailing_metadata || {})["word"]].flatten.compact
  rescue GRPC::Core::CallError => error
    ending[:code] = error.class.name
    ending[:details] = error.message
  rescue GRPC::BadStatus => error
    ending[:code] = CODES[error.code] || error.code.to_s
    ending[:details] = error.details
    rich = error.metadata["grpc-status-details-bin"]
    ending[:rich] = Base64.strict_encode64(rich) if rich
  end
  PRINTING.synchronize { $stdout.puts(JSON.generate(ending)); $stdout.flush }
end

threads = $stdin.each_line.map { |line| Thread.new { perform(JSON.parse(line)) } }
threads.each(&:join)
