// The service of peer.proto on grpc-go. A request says how its call ends: test_endings.py has the list.
// It prints its port, and serves until its standard input ends.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var seen sync.Map

func first(text string) bool {
	_, before := seen.LoadOrStore(text, true)
	return !before
}

var sizes = map[string]int{"large": 3000000, "oversized": 5000000}

// All kinds of RPC are streams here: the last request counts, and there is one answer at most.
func end(_ interface{}, stream grpc.ServerStream) error {
	text := ""
	for {
		request := new(wrappers.StringValue)
		err := stream.RecvMsg(request)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		text = request.Value
	}
	switch {
	case text == "wait":
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	case text == "bug":
		return errors.New("boom")
	case text == "odd":
		return status.Error(codes.Code(42), "odd")
	case text == "abort":
		return status.Error(codes.NotFound, "no order 8: größer 😀")
	case text == "rich":
		info := &errdetails.ErrorInfo{Reason: "SOLD_OUT", Domain: "shop.example"}
		rich, err := status.New(codes.FailedPrecondition, "sold out").WithDetails(info)
		if err != nil {
			return err
		}
		return rich.Err()
	case strings.HasPrefix(text, "again") && first(text):
		stream.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "1"))
		return status.Error(codes.Unavailable, "not yet")
	case sizes[text] > 0:
		text = strings.Repeat("x", sizes[text])
	case len(text) > 40:
		text = text[:40]
	}
	return stream.SendMsg(&wrappers.StringValue{Value: text})
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	peer := &grpc.ServiceDesc{ServiceName: "interop.v1.Peer", HandlerType: (*interface{})(nil)}
	for _, name := range []string{"Unary", "Down", "Up", "Both"} {
		peer.Streams = append(peer.Streams, grpc.StreamDesc{StreamName: name, Handler: end, ServerStreams: true, ClientStreams: true})
	}
	server := grpc.NewServer()
	server.RegisterService(peer, struct{}{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
