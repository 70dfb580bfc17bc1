// The service of shop.proto on grpc-go, with reflection and health. It prints its port, and serves until its standard input
// ends. An order without id is NOT_FOUND, with an ErrorInfo.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"shop"
)

type server struct{}

func (server) Get(_ context.Context, order *shop.Order) (*shop.Order, error) {
	if order.Id != 0 {
		return order, nil
	}
	refusal, err := status.New(codes.NotFound, "no such order").WithDetails(&errdetails.ErrorInfo{Reason: "SOLD_OUT"})
	if err != nil {
		return nil, err
	}
	return nil, refusal.Err()
}

func (server) Watch(order *shop.Order, stream shop.Shop_WatchServer) error {
	for id := int32(1); id <= order.Id; id++ {
		if err := stream.Send(&shop.Order{Id: id}); err != nil {
			return err
		}
	}
	return nil
}

func (server) Upload(stream shop.Shop_UploadServer) error {
	for orders := int32(0); ; orders++ {
		if _, err := stream.Recv(); err == io.EOF {
			return stream.SendAndClose(&shop.Summary{Orders: orders})
		} else if err != nil {
			return err
		}
	}
}

func (server) Trade(stream shop.Shop_TradeServer) error {
	for {
		order, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = stream.Send(order)
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	served := grpc.NewServer()
	shop.RegisterShopServer(served, server{})
	checks := health.NewServer()
	checks.SetServingStatus("interpose.shop.Shop", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(served, checks)
	reflection.Register(served)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		served.Stop()
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := served.Serve(listener); err != nil {
		panic(err)
	}
}
