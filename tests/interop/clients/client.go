// A client on grpc-go. Each line of its input is a job, each line of its output says how one ended: jobs.py has both.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type job struct {
	Id          string
	Method      string
	Text        string
	Open        bool
	Timeout     float64
	CancelAfter float64 `json:"cancel_after"`
	Metadata    map[string]string
}

type ending struct {
	Id       string   `json:"id"`
	Code     string   `json:"code"`
	Details  string   `json:"details"`
	Messages []string `json:"messages"`
	Word     []string `json:"word"`
	Rich     []byte   `json:"rich,omitempty"`
}

// As the other clients spell them.
var names = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func name(code codes.Code) string {
	if int(code) < len(names) {
		return names[code]
	}
	return strconv.Itoa(int(code))
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

func perform(channel *grpc.ClientConn, one job) ending {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if one.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, seconds(one.Timeout))
		defer cancel()
	}
	if one.CancelAfter > 0 {
		time.AfterFunc(seconds(one.CancelAfter), cancel)
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(one.Metadata))
	messages := []string{}
	trailers := metadata.MD{}
	err := call(ctx, channel, one, &messages, &trailers)
	told, _ := status.FromError(err)
	result := ending{one.Id, name(told.Code()), told.Message(), messages, trailers.Get("word"), nil}
	if len(told.Proto().GetDetails()) > 0 {
		result.Rich, _ = proto.Marshal(told.Proto())
	}
	return result
}

func call(ctx context.Context, channel *grpc.ClientConn, one job, messages *[]string, trailers *metadata.MD) error {
	up, down := one.Method == "Up" || one.Method == "Both", one.Method == "Down" || one.Method == "Both"
	kind := &grpc.StreamDesc{ClientStreams: up, ServerStreams: down}
	stream, err := channel.NewStream(ctx, kind, "/interop.v1.Peer/"+one.Method, grpc.Trailer(trailers))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&wrappers.StringValue{Value: one.Text}); err != nil && err != io.EOF {
		return err
	}
	if !one.Open {
		if err := stream.CloseSend(); err != nil {
			return err
		}
	}
	for {
		answer := new(wrappers.StringValue)
		err := stream.RecvMsg(answer)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		*messages = append(*messages, head(answer.Value))
		if !down {
			return nil
		}
	}
}

func head(text string) string {
	if len(text) > 40 {
		return text[:40]
	}
	return text
}

func main() {
	channel, err := grpc.Dial(os.Args[1], grpc.WithInsecure(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: seconds(0.1), MaxDelay: seconds(1)}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		panic(err)
	}
	defer channel.Close()
	var jobs sync.WaitGroup
	var printing sync.Mutex
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var one job
		if err := json.Unmarshal(line, &one); err != nil {
			panic(err)
		}
		jobs.Add(1)
		go func() {
			defer jobs.Done()
			text, _ := json.Marshal(perform(channel, one))
			printing.Lock()
			defer printing.Unlock()
			os.Stdout.Write(append(text, '\n'))
		}()
	}
	jobs.Wait()
}
